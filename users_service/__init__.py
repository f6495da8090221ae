"""Accounts, and who follows whom."""
