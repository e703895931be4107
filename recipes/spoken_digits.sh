#!/bin/sh
# Synthesised digits to labels, with nobody saying which frame is which: a mixer from either end, and CTC.
recurra compare spoken_digits --mixers gru,mingru --parameters 40k --depth 1 --batch 16 --length 100 --steps 400 \
    --lr 6e-3 --seeds 3 --workers 1 --run "${1:-runs/recipes}/spoken_digits"
