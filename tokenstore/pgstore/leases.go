package pgstore

import (
	"context"
	"fmt"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	// A holder that takes its lease anew is how a try goes on whose outcome was in
	// doubt.
	takeLease = `insert into lanyard_leases (name, owner, until) values ($1, $2, clock_timestamp() + $3::bigint * interval '1 microsecond')
		on conflict (name) do update set owner = excluded.owner, until = clock_timestamp() + $3::bigint * interval '1 microsecond'
		where lanyard_leases.until <= clock_timestamp() or lanyard_leases.owner = excluded.owner`
	renewLease = `update lanyard_leases set until = greatest(until, clock_timestamp() + $3::bigint * interval '1 microsecond')
		where name = $1 and owner = $2 and until > clock_timestamp()`
	dropLease = `delete from lanyard_leases where name = $1 and owner = $2`
)

// TakeLease implements tokenstore.Shared.
func (s *Store) TakeLease(ctx context.Context, name, owner string, life time.Duration) error {
	err := checkID(name)
	if err == nil {
		var rows int64
		rows, err = s.exec(ctx, takeLease, []byte(name), []byte(owner), life.Microseconds())
		if err == nil && rows == 0 {
			err = tokenstore.ErrLeased
		}
	}
	if err != nil {
		return fmt.Errorf("pgstore: taking a lease: %w", err)
	}
	return nil
}

// RenewLease implements tokenstore.Shared.
func (s *Store) RenewLease(ctx context.Context, name, owner string, life time.Duration) error {
	rows, err := s.exec(ctx, renewLease, []byte(name), []byte(owner), life.Microseconds())
	if err == nil && rows == 0 {
		err = tokenstore.ErrLeaseLost
	}
	if err != nil {
		return fmt.Errorf("pgstore: renewing a lease: %w", err)
	}
	return nil
}

// DropLease implements tokenstore.Shared.
func (s *Store) DropLease(ctx context.Context, name, owner string) error {
	if _, err := s.exec(ctx, dropLease, []byte(name), []byte(owner)); err != nil {
		return fmt.Errorf("pgstore: dropping a lease: %w", err)
	}
	return nil
}
