package speaker

// latest is a box for one value: putting another one replaces it.
type latest[T any] struct{ c chan T }

func newLatest[T any]() latest[T] { return latest[T]{make(chan T, 1)} }

// put never blocks. One goroutine puts, or it does not matter whose value wins.
func (l latest[T]) put(v T) {
	for {
		select {
		case l.c <- v:
			return
		default:
		}
		select {
		case <-l.c:
		default:
		}
	}
}
