"""Generated from protos/maand_contracts; never edited."""
