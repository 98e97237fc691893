"""`python -m collab_jax.study.search`: a term's weights, chosen on the validation split."""
