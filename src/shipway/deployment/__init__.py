"""Deployments: the file, the plan, the pointer with its history."""
