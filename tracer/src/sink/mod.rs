//! Where figures go: text, JSON, Prometheus.
