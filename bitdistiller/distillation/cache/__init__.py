"""What a teacher says about every token of a token file, kept so that training need not load the teacher."""
