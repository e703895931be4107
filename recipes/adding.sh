#!/bin/sh
# The sum of two marked numbers among two hundred: which recurrence carries an error back that far?
recurra compare adding --mixers elman,irnn,urnn,goru --parameters 11600 --depth 1 --batch 32 --length 200 --steps 400 \
    --lr 3e-3 --seeds 3 --workers 1 --run "${1:-runs/recipes}/adding-400"
# wider and longer, for the first and the last of them
recurra compare adding --mixers elman,goru --parameters 30k --depth 1 --batch 32 --length 200 --steps 600 \
    --lr 3e-3 --seeds 3 --workers 3 --run "${1:-runs/recipes}/adding-wider"
# all four at that size, twice as far apart
recurra compare adding --mixers elman,irnn,urnn,goru --parameters 30k --depth 1 --batch 32 --length 400 --steps 1000 \
    --lr 3e-3 --seeds 3 --workers 2 --run "${1:-runs/recipes}/adding-longer"
