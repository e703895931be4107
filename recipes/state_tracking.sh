#!/bin/sh
# Words of S5, the permutations of five things, at twice the length of training: swaps of neighbours after a first move.
recurra compare state_tracking --task group=S5 --task swaps=true \
    --mixers lstm,minmax,deltaproduct,rwkv7,mamba,linear_attention \
    --set deltaproduct.fades=false --set deltaproduct.conv_size=1 \
    --parameters 40k --depth 1 --batch 64 --length 12 --evaluation-length 24 --steps 1000 --lr 6e-3 \
    --seeds 3 --workers 1 --run "${1:-runs/recipes}/state_tracking"
# the same of RWKV-7 whose steps may be swaps, not only fade
recurra compare state_tracking --task group=S5 --task swaps=true --mixers rwkv7 --set rwkv7.strength=2.0 \
    --parameters 40k --depth 1 --batch 64 --length 12 --evaluation-length 24 --steps 1000 --lr 6e-3 \
    --seeds 3 --workers 1 --run "${1:-runs/recipes}/state_tracking-strength"
# Words of A5, the even ones: three neighbours change places in a circle, which takes two swaps.
recurra compare state_tracking --task group=A5 --task turns=true \
    --mixers lstm,minmax,deltaproduct,rwkv7,mamba,linear_attention \
    --set deltaproduct.fades=false --set deltaproduct.conv_size=1 --set rwkv7.strength=2.0 \
    --parameters 80k --depth 1 --batch 64 --length 12 --evaluation-length 24 --steps 1500 --lr 6e-3 \
    --seeds 3 --workers 1 --run "${1:-runs/recipes}/state_tracking-turns"
# Z60, as large as A5 and commutative: a circle of sixty places, one place either way.
recurra compare state_tracking --task group=Z60 --task turns=true \
    --mixers lstm,minmax,deltaproduct,rwkv7,mamba,linear_attention \
    --set deltaproduct.fades=false --set deltaproduct.conv_size=1 --set rwkv7.strength=2.0 \
    --parameters 80k --depth 1 --batch 64 --length 12 --evaluation-length 24 --steps 1500 --lr 6e-3 \
    --seeds 3 --workers 1 --run "${1:-runs/recipes}/state_tracking-circle"
