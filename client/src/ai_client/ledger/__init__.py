"""Money: prices, budgets, and what each call may cost and did cost, in SQLite."""
