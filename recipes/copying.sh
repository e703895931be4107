#!/bin/sh
# Five symbols held through a long silence: a matrix that only turns the state, against one that starts as the identity.
recurra compare copying --task symbols=4 --task items=5 --mixers elman,irnn,goru,urnn --parameters 10k --depth 1 \
    --batch 32 --length 200 --steps 400 --lr 3e-3 --seeds 3 --workers 1 --run "${1:-runs/recipes}/copying-200"
recurra compare copying --task symbols=4 --task items=5 --mixers elman,urnn --parameters 10k --depth 1 \
    --batch 32 --length 400 --steps 200 --lr 3e-3 --seeds 3 --workers 1 --run "${1:-runs/recipes}/copying-400"
