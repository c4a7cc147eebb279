"""Training: dual encoders and rerankers from pairs of an image and its captions. Importing this loads no torch.

options                 what may be chosen
pairs, pair_sources     what there is to learn from, and what was refused; hard negatives from an index
dual_encoder            the contract; builtin_model and open_clip_model fulfil it
losses, steps, batches  one step; views: what the image encoder is shown
fit, trainer            the loop, the state of a run, the dev split
hubness                 what a trained encoder brings for the hubness correction
reranker_…              the reranker after a built-in encoder
run                     the whole way from a file to an encoder
"""
