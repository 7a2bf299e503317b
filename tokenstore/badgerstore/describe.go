package badgerstore

// Description is what can be told of a store without its keys and its lock.
type Description struct {
	// Format is the version of what is on the disk, and Newest the one that
	// this program writes. An older one becomes the newest when it is opened.
	Format, Newest int
	// OlderKeys counts the keys that may still have sealed something, beside
	// the primary one.
	OlderKeys int
	// Rekeying says whether everything is just being sealed with the primary key.
	Rekeying bool
}

// Describe tells what kind of store is in dir, and changes nothing. The error is
// fs.ErrNotExist if there is none, else it says why Open would refuse the store.
func Describe(dir string) (Description, error) {
	id, err := readIdentity(dir)
	return Description{Format: id.Format, Newest: identityFormat, OlderKeys: len(id.OlderKeys), Rekeying: id.Rekeying}, err
}
