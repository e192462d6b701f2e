"""Commands of `twinroot`, a module per noun; app.cli mounts them."""
