"""What each command measures: its settings, its tasks, its columns and its page."""
