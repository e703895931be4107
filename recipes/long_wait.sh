#!/bin/sh
# The tasks of the min-max paper: rows of 64 in training, of 4096 held out. Whose memory wears out?
recurra compare latching --mixers minmax,lstm,mamba --parameters 20k --depth 2 --batch 32 \
    --length 64 --evaluation-length 4096 --steps 250 --lr 6e-3 \
    --seeds 3 --workers 1 --run "${1:-runs/recipes}/long_wait/latching"
recurra compare ordered_events --mixers minmax,lstm,mamba --parameters 20k --depth 2 --batch 32 \
    --length 64 --evaluation-length 4096 --steps 300 --lr 6e-3 \
    --seeds 3 --workers 1 --run "${1:-runs/recipes}/long_wait/ordered_events"
recurra compare induction --mixers minmax,lstm,mamba --parameters 30k --depth 2 --batch 64 \
    --length 32 --evaluation-length 4096 --steps 400 --lr 6e-3 \
    --seeds 3 --workers 1 --run "${1:-runs/recipes}/long_wait/induction"
