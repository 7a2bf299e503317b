package resident

// DropBy is Drop by this text for smaps.
var DropBy = drop
