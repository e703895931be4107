#!/bin/sh
# Three bits set now and then: held for 64 steps in training, and for 2048 where it counts.
recurra compare flip_flop --mixers elman,ctrnn,gru,minmax,mamba2,lru,linear_attention \
    --parameters 10k --depth 1 --batch 32 --length 64 --evaluation-length 2048 --steps 400 --lr 6e-3 \
    --seeds 3 --workers 1 --run "${1:-runs/recipes}/flip_flop"
