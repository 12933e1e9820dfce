#!/bin/sh
# A public ENet on 8 Cityscapes frames. DATA holds `weights/enet_cityscapes_void.pth` and `cityscapes_sample/`.
set -eu
cd "$(dirname "$0")/../.."
DATA=${DATA:-data}
robustseg evaluate --network "enet(others=1, weights='$DATA/weights/enet_cityscapes_void.pth')" \
    --data "cityscapes(root='$DATA/cityscapes_sample', split='train')" --size 512x1024 --batch-size 1 \
    --perturbation "pgd(budget='linf:4/255', steps=5)" --panels 0 --device cpu --out studies/enet-foreign "$@"
