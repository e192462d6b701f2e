"""The reconcile loops."""
