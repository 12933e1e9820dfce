"""A photograph from a camera that was held turned: the file says so in EXIF, every viewer shows it upright, the mask was
drawn on what was shown. Right: the image is turned as its EXIF orientation says (1 to 8, JPEG and PNG), or refused by a
sentence that names the orientation. Reports: mittagessen/kraken#760, wkentaro/labelme#1873, PaddlePaddle/PaddleDetection#1747."""

import re

import kit


def check() -> str | None:
    import numpy as np
    from PIL import Image, ImageOps

    turn = Image.Transpose
    stored = {1: None, 2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM}
    stored |= {5: turn.TRANSPOSE, 6: turn.ROTATE_90, 7: turn.TRANSVERSE, 8: turn.ROTATE_270}
    wrong = []
    for size in ((64, 64), (64, 48)):
        labels = np.zeros(size, np.uint8)
        labels[:20], labels[20:, : size[1] // 3] = 2, 1
        shown = Image.fromarray(kit.colour(labels, noise=0))
        for number, way in stored.items():
            for suffix, options in (("jpg", {"quality": 100, "subsampling": 0}), ("png", {})):
                name = f"{size[1]}-{number}-{suffix}"
                exif = Image.Exif()
                exif[0x0112] = number
                kit.save(f"{name}/labels/a.png", labels)
                path = kit.save(
                    f"{name}/images/a.{suffix}",
                    np.array(shown.transpose(way) if way is not None else shown),
                    exif=exif,
                    **options,
                )
                if ImageOps.exif_transpose(Image.open(path)).size != shown.size:
                    raise kit.Open("this Pillow reads another EXIF orientation than was written")
                seen = kit.attempt(lambda name=name: kit.miou(kit.evaluate(kit.tiny(), kit.folder(name))))
                if seen.refused and re.search("orientation|exif", str(seen.error), re.I):
                    continue
                if seen.error is not None or seen.value < 0.999:
                    wrong.append(
                        f"orientation {number} {suffix} {size[1]}x{size[0]}: {f'mIoU {seen.value:.3f}' if seen.error is None else type(seen.error).__name__}"
                    )
    return f"{len(wrong)} of 32 wrong, the first: {'; '.join(wrong[:3])}" if wrong else None


if __name__ == "__main__":
    kit.run(check, "mIoU 1.0 for each orientation, or a refusal that names it")
