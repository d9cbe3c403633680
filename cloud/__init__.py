"""The aggregator: takes in what gateways send, exactly once, and shows headquarters the whole fleet."""
