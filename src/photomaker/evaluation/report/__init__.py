"""From kept results to tables, intervals over people, plots and files."""
