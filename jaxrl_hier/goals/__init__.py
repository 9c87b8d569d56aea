"""Goal-conditioned learning: values of any goal, and goals in hindsight."""
