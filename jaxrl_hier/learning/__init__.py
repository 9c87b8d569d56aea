"""What learners share: networks, recurrent cells, advantages, replay learners, tables, optimisers."""
