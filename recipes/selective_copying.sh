#!/bin/sh
# Symbols scattered among blanks: a gate that reads its input chooses what to keep, a fixed filter cannot.
recurra compare selective_copying --task symbols=6 --task items=4 --mixers mingru,mamba,lstm,linear_attention,s4d \
    --parameters 30k --depth 2 --batch 32 --length 32 --steps 400 --lr 6e-3 \
    --seeds 3 --workers 1 --run "${1:-runs/recipes}/selective_copying"
# twice as long with twice the rows, for the three that the claim is about
recurra compare selective_copying --task symbols=6 --task items=4 --mixers mamba,mingru,s4d \
    --parameters 30k --depth 2 --batch 64 --length 32 --steps 800 --lr 6e-3 \
    --seeds 3 --workers 1 --run "${1:-runs/recipes}/selective_copying-longer"
# blocks of the mixer alone, as in Mamba's paper: no MLP between; a size that four of them can have
recurra compare selective_copying --task symbols=6 --task items=4 --mixers mamba,mingru,lstm,s4d --set s4d.units=80 \
    --parameters 38800 --depth 2 --hidden 0 --batch 64 --length 32 --steps 1000 --lr 6e-3 \
    --seeds 3 --workers 1 --run "${1:-runs/recipes}/selective_copying-alone"
