#!/bin/sh
# A memory beside a network against a network alone: six symbols copied.
recurra compare copying --task symbols=8 --task items=6 \
    --mixers lstm,ntm,dnc --parameters 30k --depth 1 --batch 32 --length 16 --steps 600 --lr 6e-3 \
    --seeds 3 --workers 1 --run "${1:-runs/recipes}/machines"
