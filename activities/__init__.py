"""Side effects of workflows, one class per noun with injected ports."""
