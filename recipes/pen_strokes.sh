#!/bin/sh
# A pen that writes a text: a mixture of densities for the next move, a soft window over the letters.
recurra compare pen_strokes --mixers lstm --parameters 40k --depth 2 --batch 24 --length 56 --steps 250 \
    --lr 6e-3 --seeds 3 --workers 1 --run "${1:-runs/recipes}/pen_strokes"
