#!/bin/sh
# Clean figures over all 233 CamVid test frames at 240x180. CAMVID is the folder in SegNet layout.
set -eu
cd "$(dirname "$0")/../.."
robustseg evaluate --network zoo:erfnet-camvid --network zoo:deeplabv3plus-camvid \
    --data "camvid(root='${CAMVID:-data/camvid}', split='test')" --size 180x240 --device cpu --out studies/camvid-clean "$@"
