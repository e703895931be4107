#!/bin/sh
# Many-query associative recall against the size of the state: the same models with small, middling and large memories.
# What has no short convolution of its own reads through a QRNN, which sees two tokens at a time.
recurra compare associative_recall --task pairs=4 --task vocabulary=32 --task graded=true \
    --mixers qrnn+linear_attention,qrnn+gla,deltanet,gated_deltanet,mamba2 \
    --set linear_attention.heads=8 --set gla.heads=4 --set deltanet.heads=8 --set gated_deltanet.heads=8 \
    --set mamba2.state_size=16 --parameters 30k --depth 2 --batch 64 --length 24 --steps 800 --lr 6e-3 \
    --seeds 3 --workers 1 --run "${1:-runs/recipes}/recall/small"
recurra compare associative_recall --task pairs=4 --task vocabulary=32 --task graded=true \
    --mixers qrnn+attention,qrnn+linear_attention,qrnn+gla,deltanet,gated_deltanet,mamba2 \
    --set linear_attention.heads=4 --set gla.heads=2 --set deltanet.heads=4 --set gated_deltanet.heads=4 \
    --set mamba2.state_size=64 --parameters 30k --depth 2 --batch 64 --length 24 --steps 800 --lr 6e-3 \
    --seeds 3 --workers 1 --run "${1:-runs/recipes}/recall/middling"
recurra compare associative_recall --task pairs=4 --task vocabulary=32 --task graded=true \
    --mixers qrnn+linear_attention,qrnn+gla,deltanet,gated_deltanet \
    --set linear_attention.heads=2 --set gla.heads=1 --set deltanet.heads=2 --set gated_deltanet.heads=2 \
    --parameters 30k --depth 2 --batch 64 --length 24 --steps 800 --lr 6e-3 \
    --seeds 3 --workers 1 --run "${1:-runs/recipes}/recall/large"
