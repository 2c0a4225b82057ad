"""The observer: takes what relays report, folds it into totals, and shows it."""
