"""Training: dual towers and rerankers from pairs of an image and its captions. Importing this loads no torch.

pairs, pair_sources     what there is to learn from, and what was refused
towers                  the contract; builtin_model and open_clip_model fulfil it
low_rank                LoRA, for towers of open_clip
losses, steps, batches  one step; views: what the image encoder is shown; mining: hard negatives from an index
options                 what may be chosen
fit, trainer, held_out  the loop, the state of a run, the dev split
run                     the whole way from a file to an encoder
"""
