#!/bin/sh
# Which way does it move? No single frame says: convolutions see, a mixer remembers.
recurra compare moving_shapes --task side=8 --task noise=0.2 --mixers gru,lstm --parameters 30k --depth 1 --batch 32 \
    --length 12 --steps 800 --lr 3e-3 --seeds 3 --workers 1 --run "${1:-runs/recipes}/moving_shapes"
