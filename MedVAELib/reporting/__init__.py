"""Helpers of the report: display axes, pictures, legends and wording."""
