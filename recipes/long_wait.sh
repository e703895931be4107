#!/bin/sh
# One symbol among blanks, to be said at the end: rows of 16 in training, of 4096 held out. Whose memory wears out?
recurra compare selective_copying --task symbols=6 --task items=1 --mixers minmax,lstm,mamba \
    --parameters 20k --depth 1 --batch 64 --length 16 --evaluation-length 4096 --steps 300 --lr 6e-3 \
    --seeds 3 --workers 1 --run "${1:-runs/recipes}/long_wait"
