//! Pure folds of samples and records into an immutable snapshot.
