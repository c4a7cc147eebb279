"""Training: dual towers and rerankers from pairs of an image and its captions. Importing this loads no torch.

pairs, pair_sources     what there is to learn from, and what was refused
towers                  the contract; builtin_towers and open_clip_towers fulfil it
losses, steps, batches  one step; views: what the image tower is shown
fit, run                the loop; the whole way from a file to an encoder
"""
