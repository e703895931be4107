#!/bin/sh
# Words of S5, the permutations of five things, at twice the length of training: swaps of neighbours after a first move.
recurra compare state_tracking --task group=S5 --task swaps=true \
    --mixers lstm,minmax,deltaproduct,rwkv7,mamba,linear_attention \
    --set deltaproduct.fades=false --set deltaproduct.conv_size=1 \
    --parameters 40k --depth 1 --batch 64 --length 12 --evaluation-length 24 --steps 1000 --lr 6e-3 \
    --seeds 3 --workers 1 --run "${1:-runs/recipes}/state_tracking"
