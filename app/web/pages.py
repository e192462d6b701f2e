"""All blueprints of the console."""

from __future__ import annotations

from flask import Blueprint

from app.web import (
    attention,
    channels,
    download,
    events,
    fleet,
    freezes,
    go,
    groups,
    health,
    images,
    joining,
    node_actions,
    node_declare,
    node_exports,
    node_page,
    node_suggest,
    nodes,
    preferences,
    rollout_actions,
    rollout_compose,
    rollout_page,
    rollout_replay,
    rollouts,
    saved_views,
    services,
    sign_in,
    withdrawal,
)

BLUEPRINTS: tuple[Blueprint, ...] = tuple(
    module.blueprint
    for module in (
        health,
        sign_in,
        preferences,
        fleet,
        attention,
        freezes,
        services,
        groups,
        nodes,
        node_exports,
        node_suggest,
        saved_views,
        node_page,
        node_declare,
        node_actions,
        rollouts,
        rollout_compose,
        rollout_page,
        rollout_replay,
        rollout_actions,
        events,
        go,
        images,
        channels,
        withdrawal,
        joining,
        download,
    )
)
