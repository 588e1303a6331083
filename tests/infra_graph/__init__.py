"""Both descriptions of the AWS stack as one canonical list each, so that they can be compared."""
