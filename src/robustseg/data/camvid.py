"""CamVid in the SegNet layout: `ROOT/{train,val,test}` images beside `ROOT/{train,val,test}annot` index masks.

Brostow et al. 2009, 11 classes and void. The published splits overlap in place and time: `val` lies in a gap of a
training drive, and of `test` only sequence Seq05VD is a new drive. So two more splits hold out a block of training to
choose on: `fit` is `train` without the end of sequence 0006R0, `holdout` its last 30 frames, 3 seconds apart.
"""
