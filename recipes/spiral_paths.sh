#!/bin/sh
# Spirals seen at a fifth of their steps, at no regular times: a latent state is found and followed.
recurra compare spiral_paths --mixers ode_rnn --set method=euler --parameters 20k --depth 1 --batch 32 --length 32 \
    --steps 300 --lr 6e-3 --seeds 3 --workers 1 --run "${1:-runs/recipes}/spiral_paths"
