#!/bin/sh
# Digits read one pixel at a time: a hundred steps between the first that matters and the answer.
recurra compare sequential_digits --mixers elman,irnn,gru,lru --parameters 10k --depth 1 --batch 32 --length 100 \
    --steps 500 --lr 3e-3 --seeds 3 --workers 1 --run "${1:-runs/recipes}/sequential_digits"
