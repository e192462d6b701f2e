"""The planner's parts; app.core.planner is its face."""
