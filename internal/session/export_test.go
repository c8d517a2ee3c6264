package session

// AwayLimit is awayLimit, for tests.
const AwayLimit = awayLimit
