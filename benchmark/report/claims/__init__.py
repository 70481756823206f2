"""The paper's claims, each judged on what was measured."""
