"""Which generated videos are worth training on: criteria, decision, report."""
