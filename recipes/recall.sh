#!/bin/sh
# Many-query associative recall against the size of the state: how many pairs fit, and can they be written cleanly?
recurra compare associative_recall --task pairs=8 --task vocabulary=64 \
    --mixers linear_attention,gla,deltanet,gated_deltanet,mamba2,attention \
    --parameters 40k --depth 2 --batch 32 --length 32 --steps 250 --lr 6e-3 \
    --seeds 3 --workers 1 --run "${1:-runs/recipes}/recall"
