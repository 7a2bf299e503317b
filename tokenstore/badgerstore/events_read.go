package badgerstore

import "github.com/lanyard-proxy/lanyard/tokenstore"

// readEvents is the part of read that reads events. Those that are gone are what
// is missing between the first and the last, by the head if there still is one.
func (f *found) readEvents(r *reader, src source, codec tokenstore.Codec, use func(entry) bool) error {
	var there eventRange
	if indexKey, err := src.id.openIndexKey(codec); err == nil { // else nobody can tell
		h, err := r.head(keyMaker{indexKey: indexKey})
		if err != nil {
			return err
		}
		there = h.events
	}
	next := there.oldest // 0 if it isn't known
	give := func(e tokenstore.Event) error {
		if use != nil && !use(entry{event: &e}) {
			return errEnough
		}
		return nil
	}
	lose := func(before uint64) error {
		for ; next != 0 && next < before; next++ {
			f.lostEvents++
			if err := give(tokenstore.Event{Seq: next, Type: tokenstore.EventLost}); err != nil {
				return err
			}
		}
		return nil
	}
	err := r.each(keyEvent, func(i item) error {
		seq, ok := eventSeq(i.key)
		if !ok || i.damaged != nil || seq < there.oldest {
			return nil //nolint:nilerr // as below
		}
		e, err := openEventValue(codec, src.id, seq, i.value)
		if err != nil {
			return nil //nolint:nilerr // the next one that opens tells that it is gone
		}
		if err := lose(seq); err != nil {
			return err
		}
		f.events++
		next = seq + 1
		return give(e)
	})
	if err != nil {
		return err
	}
	return lose(there.newest + 1)
}

// head returns the head, a zero one if there is none that is whole.
func (r *reader) head(keys keyMaker) (h head, err error) {
	err = r.each(keyHead, func(i item) error {
		if found, ok := parseHead(keys.headKey(), i.value); ok {
			h = found
		}
		return nil
	})
	return h, err
}
