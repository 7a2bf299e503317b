package badgerstore

import (
	"errors"
	"fmt"
	"slices"
)

// restoreOrAccept is what to do about a damaged store, and whatToDo ends each error
// of one that was not opened.
const (
	restoreOrAccept = "restore a backup, or take what can still be read with `caddy lanyard restore --accept-loss`"
	whatToDo        = "nothing was changed: " + restoreOrAccept
)

var errNoHead = errors.New("the database has lost its head record, or it was edited")

// check is compare with an error that wraps ErrIncomplete and says what to do,
// but where it says nothing about the files.
func (r *reader) check(marked uint64, id identity, keys keyMaker) (head, error) {
	h, err := r.compare(marked, id, keys)
	if err != nil && !isRefused(err) {
		err = fmt.Errorf("%w: %w; %s", ErrIncomplete, err, whatToDo)
	}
	return h, err
}

// compare compares what r reads with the mark, the identity and the head, and
// returns the head. An error names what is damaged or gone.
func (r *reader) compare(marked uint64, id identity, keys keyMaker) (head, error) {
	problems := slices.Clone(r.problems)
	if r.last < marked {
		problems = append(problems, fmt.Errorf(
			"the last %d transactions in %s are gone, which were acknowledged: a .mem or .sst file or the MANIFEST is damaged, missing or old",
			marked-r.last, r.dir))
	}
	var h head
	if len(problems) == 0 {
		var err error
		if err = r.checkIdentity(id); err == nil {
			h, err = r.checkHead(keys)
		}
		if err == nil {
			err = r.readLong()
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", r.dir, err))
		}
	}
	if len(problems) > 0 {
		return head{}, errors.Join(problems...)
	}
	return h, nil
}

// checkHead compares the head with what is there, unless that is known. That
// counts each connection and so finds those whose values can't be read.
func (r *reader) checkHead(keys keyMaker) (h head, err error) {
	found := false
	err = r.each(keyHead, func(i item) error {
		if string(i.key) == keyHead {
			h, found = parseHead(keys.headKey(), i.value)
			found = found && h.seq == i.version
		}
		return nil
	})
	switch {
	case err != nil:
		return h, err
	case !found:
		return h, errNoHead
	case h.seq != r.last:
		return h, fmt.Errorf("the last transaction is number %d, and its head says %d", r.last, h.seq)
	}
	if r.known {
		return h, nil
	}
	count, err := r.count(keys)
	if err != nil {
		return h, err
	}
	return h, h.differs(count)
}

// count makes a head of what is there.
func (r *reader) count(keys keyMaker) (h head, err error) {
	key := keys.headKey()
	digest := newDigester(key)
	h, err = r.countConnections(key)
	return h, errors.Join(
		err,
		r.each(keyDeleted, func(i item) error {
			h.count(digest, keyDeleted, i.key[len(keyDeleted):], 0)
			return nil
		}),
		r.each(keyEvent, func(i item) error { return h.events.count(i.key) }),
	)
}

// countConnections counts the connections, as many parts of them at a time as
// there are processors: at a million this is half of what opening the store takes.
func (r *reader) countConnections(key []byte) (sum head, err error) {
	starts := r.parts(keyConnection)
	heads, errs := make([]head, len(starts)), make([]error, len(starts))
	each(len(starts), func(n int) {
		var end []byte
		if n+1 < len(starts) {
			end = starts[n+1]
		}
		errs[n] = catch(func() error { return r.countPart(&heads[n], newDigester(key), starts[n], end) })
	})
	for n := range heads {
		sum.connections += heads[n].connections
		sum.xor(heads[n].sum[:])
		if err == nil {
			err = errs[n]
		}
	}
	return sum, err
}

// countPart counts into h the connections with keys from start on and before end.
func (r *reader) countPart(h *head, digest *digester, start, end []byte) error {
	return r.between(keyConnection, start, end, func(i item) error {
		id := i.key[len(keyConnection):]
		if i.damaged != nil {
			return fmt.Errorf("connection %q: %w", id, i.damaged)
		}
		return h.countConnection(digest, id, i.value)
	})
}

// readLong reads the values of flows and notes: a long one is in a .vlog file,
// which is then kept.
func (r *reader) readLong() error {
	for prefix, name := range map[string]string{keyFlow: "a flow", keyNote: "a note"} {
		err := r.each(prefix, func(i item) error {
			if i.damaged != nil {
				return fmt.Errorf("%s: %w", name, i.damaged)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
